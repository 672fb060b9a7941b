"""Greets whoever the payload names."""

# What stands here runs once, when the worker starts: the place for imports and for what takes long to load.

TEXT = 0  # text/plain in the CoAP Content-Formats registry


def handle(event, context):
    """Runs in a process of its own for each call. An exception makes the call fail, with the exception as the reason."""
    name = event.decode("utf-8").strip() or "world"
    context.log(f"greeting {name}")
    context.set_content_format(TEXT)
    return f"hello, {name}\n"
