"""The Python API in one page: `python examples/python_api.py examples/astronaut.jpg`."""

import sys

import faceage

ager = faceage.load()

for prediction in ager.predict(sys.argv[1]):
    low, high = prediction.interval
    print(f"face {prediction.number}: {prediction.age:.0f} years ({low:.0f}-{high:.0f})")

for aged in ager.age(sys.argv[1], to=[5, 70]):
    aged.photo.show(title=f"at {aged.age:.0f}")
