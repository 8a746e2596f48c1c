"""The profiles: one row each.  Who comes stands in the locustfile of the same name."""

from dataclasses import dataclass

# Environment variables for a locustfile: whose certificates to trust, and where the result goes.
CA = "TERMPROXY_LOAD_CA"
RESULT = "TERMPROXY_LOAD_RESULT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    name: str
    title: str
    users: int
    # Seconds between reloads, and between kills of workers; 0: none.
    reload_every: float = 0.0
    kill_every: float = 0.0


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(name="steady", title="people as they come, and nothing happens", users=40),
        Profile(
            name="storm",
            title="the same while workers are replaced and killed",
            users=30,
            reload_every=2.0,
            kill_every=5.0,
        ),
        Profile(name="slow", title="many slow clients, and some who are not", users=80),
    )
}
