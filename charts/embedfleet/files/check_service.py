"""Of `helm test`: a service embeds a sentence. Standard library only; settings come from the environment."""

import json
import math
import os
import sys
import time
import urllib.error
import urllib.request

NOT_YET = (429, 503)
"""Full, or not ready: another try may do."""
url, deadline = os.environ["URL"], time.monotonic() + float(os.environ["WAIT_SECONDS"])
headers = {"Content-Type": "application/json"}
if key := os.environ.get("API_KEY"):
    headers["Authorization"] = f"Bearer {key}"
body = {"input": os.environ["SENTENCE"], "encoding_format": "float"}
if model := os.environ.get("MODEL"):
    body["model"] = model
request = urllib.request.Request(url, json.dumps(body).encode(), headers)
while True:
    began = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            made = json.load(answer)
        break
    except urllib.error.HTTPError as error:
        seen = f"status {error.code}: {error.read().decode(errors='replace').strip()}"
        if error.code not in NOT_YET:
            sys.exit(f"{url}: {seen}")
    except OSError as error:
        seen = str(error)
    if time.monotonic() >= deadline:
        sys.exit(f"{url}: {seen}")
    time.sleep(2)
vector = made["data"][0]["embedding"]
length = math.hypot(*vector)
if not (vector and math.isfinite(length) and length > 0):
    sys.exit(f"{url}: not a vector: {vector}")
milliseconds = 1000 * (time.monotonic() - began)
print(f"{made['model']}: a vector of {len(vector)} numbers, length {length:.3f}, after {milliseconds:.0f} ms")
