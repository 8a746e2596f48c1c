"""Compare what termproxy and its peers cost, operation by operation, on this machine.

    servers     who is compared: one row each, with its configuration
    loads       what is measured: one row each, with its target
    scale       the same for how cost grows
    choices     which of both a command line names
    rounds      in which order, how often
    wrk, open_loop, idle        the ways to load a server
    metering    what the serving processes used meanwhile
    processes, site, machine    starting servers, what they serve, where they run
    summary     medians, ratios and verdicts
    report, chart, page         the table, the JSON file, the picture, all in one HTML file

A new peer or mode is a row in `servers`; a new operation is a row in `loads`.
"""
