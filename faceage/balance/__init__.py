"""`faceage balance`: fill the rare age groups of a dataset with real people at other ages.

`plan` counts the groups and chooses who becomes which age; `run` renders the pictures; `gate`
decides which are kept; `folder` holds what a run has done so far, so that it can be continued;
`photos` reads folders that have no labels.
"""
