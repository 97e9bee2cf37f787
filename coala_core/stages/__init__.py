"""One module per stage: what its artifact depends on, and how the artifact is made.

Every module offers ``plan`` (the key, computed without doing the work) and ``run`` (the artifact,
reused or made). Neither knows an orchestrator or a tracker.
"""
