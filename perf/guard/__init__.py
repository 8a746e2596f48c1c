"""Has an operation become dearer?  Counts instructions, which a busy machine does not change.

    loads        what is counted, and the client and the backend for it: one row each
    server       termproxy under callgrind, a fresh worker for each load
    callgrind    reading what callgrind wrote
    judgement    the stored figures, and what counts as a regression

`scripts/bench-check` runs it.
"""
