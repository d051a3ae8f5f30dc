"""URLs of databases: what is wrong with one, and how it is shown, in both cases without its password."""

from urllib.parse import parse_qsl, quote, urlsplit

__all__ = ["EMBEDDED", "fault_of", "masked"]

EMBEDDED = "embedded"
MASK = "***"
_SCHEMES = ("postgresql", "postgres")
_HIDDEN = ("password", "sslpassword", "passfile")


def fault_of(url: str) -> str | None:
    """Why `url` cannot be a database's; None where it can. Nothing of the URL is in the answer."""
    if url == EMBEDDED:
        return None
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, strict_parsing=True) if parts.query else []
    except ValueError:
        return "is no URL; characters that mean something in one have to be percent-encoded in its password"
    if parts.scheme not in _SCHEMES:
        return f"has to be {EMBEDDED!r} or a URL that begins with postgresql://"
    hosts = parts.netloc.rpartition("@")[2]
    ports = [host.rpartition("]")[2].partition(":")[2] for host in hosts.split(",")]
    # The driver would take what follows the first @ for the host, and say it in its error.
    if parts.netloc.count("@") > 1 or any(port and not port.isdecimal() for port in ports) or parts.fragment:
        return "is not well-formed; @ / : ? # % in its password have to be percent-encoded"
    if not parts.netloc and not any(name == "host" for name, _ in query):
        return "names no host"
    return None


def masked(url: str) -> str:
    """`url` with its passwords hidden; one that is none is hidden whole."""
    if url == EMBEDDED:
        return url
    if fault_of(url) is not None:
        return MASK
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    query = "&".join(
        f"{name}={MASK if name in _HIDDEN else quote(value, safe='/')}"
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    )
    netloc = f"{user}{colon and colon + MASK}{at}{hosts}"
    return f"{parts.scheme}://{netloc}{parts.path}{query and '?' + query}"
