"""Where the time of a study goes: cases, each in a process of its own, and the comparison of two builds.

:mod:`.cases` says what is measured, :mod:`.worker` measures it in a child, :mod:`.run` asks children for rounds, and
:mod:`.verdict` compares two results.
"""
