"""What schemathesis is told of what .ci/schema has it send."""

import schemathesis
from hypothesis import strategies

# Archives: what is sent is none, and must be refused as such.
for archive in ("application/x-tar", "application/gzip", "application/zstd"):
    schemathesis.openapi.media_type(archive, strategies.binary(max_size=2048))

FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


@schemathesis.hook
def filter_case(context, case):
    """In a form everything is text, so what is no text there cannot be sent, and need not be refused."""
    wrong = case.meta is not None and case.meta.generation.mode.is_negative
    return not (wrong and case.media_type in FORMS)
