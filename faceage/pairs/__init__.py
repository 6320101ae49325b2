"""Synthetic people, each at several ages, for paired training.

`generator` renders faces, `directions` finds how a latent code ages, `labels` measures what was
rendered, `shards` stores it, `run` is the command.
"""
