"""Of `helm test`: the operator says that it is well. Standard library only; settings come from the environment."""

import os
import sys
import time
import urllib.error
import urllib.request

url, deadline = os.environ["URL"], time.monotonic() + float(os.environ["WAIT_SECONDS"])
while True:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            print(f"{url}: {answer.read().decode().strip()}")
            sys.exit(0)
    except urllib.error.HTTPError as error:
        seen = f"status {error.code}: {error.read().decode(errors='replace').strip()}"
    except OSError as error:
        seen = str(error)
    if time.monotonic() >= deadline:
        sys.exit(f"{url}: {seen}")
    time.sleep(2)
