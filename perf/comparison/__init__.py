"""Compare what termproxy and its peers cost, operation by operation, on this machine.

    servers     who is compared: one row each, with its configuration
    loads       what is measured: one row each, with its target
    rounds      in which order, how often
    wrk, idle   the two ways to load a server
    metering    what the serving processes used meanwhile
    processes, site, machine    starting servers, what they serve, where they run
    summary     medians, ratios and verdicts
    report, chart               the table, the JSON file, the picture

A new peer or mode is a row in `servers`; a new operation is a row in `loads`.
"""
