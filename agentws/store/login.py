"""What the role that the server logs in with could do beside the units of work, which bind every other role."""

from collections.abc import Sequence

from agentws.store.migrate import ROLES
from agentws.store.pool import Database

__all__ = ["powers_of_login"]

# Membership counts also where it is not inherited: SET ROLE is one statement away. A superuser is a member of all.
# A role with CREATEROLE makes itself a member before PostgreSQL 16, and later of every role that it made.
_POWERS = """
WITH self AS (SELECT oid, rolsuper, rolcreaterole FROM pg_roles WHERE rolname = session_user),
owners AS (
    SELECT nspowner AS owner FROM pg_namespace WHERE nspname = 'agentws'
    UNION SELECT c.relowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'agentws'
    UNION SELECT p.proowner FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'agentws'
        AND NOT EXISTS (SELECT 1 FROM pg_roles r WHERE r.oid = p.proowner AND r.rolname = ANY ($1))
)
SELECT s.rolsuper AS superuser,
    EXISTS (SELECT 1 FROM pg_roles r WHERE (r.rolbypassrls OR r.rolsuper) AND pg_has_role(s.oid, r.oid, 'MEMBER'))
        AS bypass,
    EXISTS (SELECT 1 FROM owners o WHERE pg_has_role(s.oid, o.owner, 'MEMBER')) AS owner,
    EXISTS (SELECT 1 FROM pg_roles r WHERE r.rolname = ANY ($1) AND pg_has_role(s.oid, r.oid, 'MEMBER')) AS member,
    s.rolcreaterole AS maker
FROM self s
"""
_TEXTS = {
    "bypass": "has BYPASSRLS, or is a member of a role that has it or is a superuser",
    "owner": "owns the schema or what is in it, or is a member of a role that does",
    "member": f"is a member of {' or '.join(ROLES)}",
    "maker": "has CREATEROLE",
}


async def powers_of_login(database: Database) -> Sequence[str]:
    """What the login could do to bypass row-level security, each as the rest of a sentence about it; none: nothing.

    Raises:
        StoreUnavailable: if there was no answer in time.
    """
    (found,) = await database.system(_POWERS, list(ROLES))
    if found["superuser"]:
        return ["is a superuser"]
    return [text for name, text in _TEXTS.items() if found[name]]
