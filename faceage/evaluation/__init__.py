"""Evaluation: any method that ages faces, measured by the same rules, and the report of it.

`run` opens the `methods`; `measure` runs them over faces and gives values per face; `summary` turns
them into the estimates of a `results.Report`; `report` renders it.
"""
