"""A page that follows a study while it runs, from its record alone.

``watch`` looks at the record, at most once in a while whoever asks; ``sections`` and ``trial`` turn
what it finds into HTML and figures; ``server`` hands that to browsers of this machine.
"""
