"""Running a trained model on uint8 faces, apart from how the networks are executed."""
