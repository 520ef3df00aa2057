"""The autograder: runs students' notebooks in a cage, and decides their marks outside of it.

``submissions`` reads what students handed in and ``notebooks`` puts their answers into the assignment's own notebook;
``cage`` starts a kernel that reaches nothing, ``watch`` limits what it takes and ``execute`` runs one notebook in it;
``judge`` compares the answers of its marked cells with the solution's, ``gradebook`` writes marks through nbgrader, and
``__main__`` is the command behind ``make grade``. Everything runs in an environment of its own, without torch. This
room may touch ``gpbook_utils.answers`` and ``gpbook_utils.files`` only.
"""
