"""What each command does, without a terminal: files are examined, proven and changed, and an
outcome comes back. What is said of it stands in ``words.py``.
"""
