"""Sends what a curl line of ours says, where there is no curl: -s -G -X -H -d --data-urlencode."""

import argparse
import sys
import urllib.error
import urllib.request
from urllib.parse import quote


def main() -> None:
    reader = argparse.ArgumentParser()
    reader.add_argument("url")
    reader.add_argument("-s", action="store_true")
    reader.add_argument("-G", action="store_true")
    reader.add_argument("-X")
    reader.add_argument("-H", action="append", default=[])
    reader.add_argument("-d", action="append", default=[])
    reader.add_argument("--data-urlencode", action="append", default=[])
    said = reader.parse_args()
    encoded = [
        f"{name}={quote(text)}"
        for name, _, text in (each.partition("=") for each in said.data_urlencode)
    ]
    text = "&".join([*encoded, *said.d])
    url = f"{said.url}?{text}" if said.G else said.url
    data = text.encode() if text and not said.G else None
    headers = dict(each.split(": ", 1) for each in said.H)
    request = urllib.request.Request(url, data, headers, method=said.X)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            sys.stdout.write(answer.read().decode())
    except urllib.error.HTTPError as error:
        sys.stdout.write(error.read().decode())


if __name__ == "__main__":
    main()
