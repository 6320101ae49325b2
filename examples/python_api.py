"""The Python API: `python examples/python_api.py [photo]`."""

import sys
from pathlib import Path

import faceage

photo = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "astronaut.jpg"
ager = faceage.load()

for prediction in ager.predict(photo):
    low, high = prediction.interval
    print(f"face {prediction.number}: {prediction.age:.0f} years ({low:.0f}-{high:.0f})")

for aged in ager.age(photo, to=[5, 70]):
    file = Path(f"aged{aged.age:.0f}.png")
    aged.photo.save(file)
    print(file)
