"""How the book is made: running, storing and checking notebooks, the ledger, records, handouts, and the page's theme.

This room may touch ``gpbook_utils``; nothing of ``gpbook_utils`` or ``grading`` may touch it. Building the page, and
reading verdicts back, never imports torch.
"""
