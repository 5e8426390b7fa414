"""What an error of an object store means, in words that repeat nothing of it."""

import re

_CODE = re.compile(r"<Code>(\w{1,64})</Code>")  # of S3's and Azure's XML answers
_STATUS = re.compile(r"status code: (\d{3})")
_NO_ANSWER = re.compile(r"after [1-9]\d* retries|HTTP error")  # of object_store's text
# Where the environment holds no credentials, a cloud's own machine is asked for some: Google's; Amazon's and Azure's.
_METADATA = re.compile(r"metadata\.google\.internal|169\.254\.169\.254|/latest/(api/token|meta-data)")


def _complaint(error: Exception, seconds: float) -> str:
    """Tell an outage from a refusal: one passes by itself, the other does not. seconds: for how long it was tried."""
    reason, text = _reason(error), str(error)
    status = int(next(iter(_STATUS.findall(text)), 0))
    if _METADATA.search(text):
        return f"found no credentials for it ({reason}). Give them in the environment, such as AWS_ACCESS_KEY_ID."
    if status in (401, 403):
        return f"the object store refuses the credentials ({reason}). Check them and the region in the environment."
    if status >= 500 or _NO_ANSWER.search(text):
        return (
            f"the object store does not answer ({reason}); tried for {seconds:g} s. If it is down, run the same "
            f"command when it is up again; ECGCOHORTS_RETRY_SECONDS=600 tries for longer. If not, check the endpoint in the environment."
        )
    return (
        f"the object store refuses or does not answer ({reason}). Check the URL, and endpoint, region and credentials in "
        "the environment."
    )


def _reason(error: Exception) -> str:
    """Name the kind of an error in a few words: its text may hold addresses, signatures and headers."""
    text = str(error)
    found = [type(error).__name__, *_STATUS.findall(text)[:1], *_CODE.findall(text)[:1]]
    return " ".join(found)
