"""What .ci/schema leaves out of what schemathesis would send."""

import schemathesis

FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


@schemathesis.hook
def filter_case(context, case):
    """In a form everything is text, so what is no text there cannot be sent, and need not be refused."""
    wrong = case.meta is not None and case.meta.generation.mode.is_negative
    return not (wrong and case.media_type in FORMS)
