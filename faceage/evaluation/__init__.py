"""Measuring: any system that ages faces, by the same rules, and reports of what came out.

`run` is the command; `comparison` decides what is measured of whom; `measure` measures it with
`faceage.judges`; `ageing` and `figures` make figures of that; `reports` shows them. What is
measured is a system (`systems`, `folders`), on faces (`inputs`).
"""
