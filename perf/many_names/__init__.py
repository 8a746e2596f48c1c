"""Compare what termproxy costs with one certificate and with ten thousand.

    certificates    what is served: a folder of certificates, each for its own name
    rows            who is compared, and by which loads: rows for `comparison`
    tools           what is measured without a load

All else is `comparison`'s.
"""
