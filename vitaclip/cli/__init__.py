"""The command ``vitaclip``: each file here is a door with its options, and what lies behind a door
is imported when it is opened. So help and mistakes cost no second of imports.

Paths have ``parser=Path``: what reads a file says what is wrong with it, in its own words.
"""
