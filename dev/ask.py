"""Ask a served base model and the one tuned from it about messages to a shop's support, by the `openai` client.

`python -m dev.ask URL BASE TUNED` prints each message, both answers, and the fields that are right. The server's key is
in the variable HONE_KEY: who may list processes sees arguments.
"""

import argparse
import os
import textwrap

import httpx2
import openai

from dev.data.tickets import prompt, tickets

# Messages that the training data have not: they are made from another seed.
SEED = 20_240_229
MESSAGES = 3
MAX_TOKENS = 80
WIDTH = 160
"""Most characters that are shown of a base model's answer."""


def ask(client: openai.OpenAI, model: str, message: str) -> str:
    """The model's answer, decoded greedily."""
    completion = client.chat.completions.create(
        model=model,
        messages=prompt(message),  # type: ignore[arg-type]
        temperature=0,
        max_completion_tokens=MAX_TOKENS,
    )
    return (completion.choices[0].message.content or "").strip()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m dev.ask", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", help="of the server, without /v1")
    parser.add_argument("base", help="name of the base model")
    parser.add_argument("tuned", help="name of the tuned model")
    arguments = parser.parse_args()
    # No proxy stands between this machine and itself.
    http = httpx2.Client(trust_env=False)
    client = openai.OpenAI(
        base_url=f"{arguments.url}/v1", api_key=os.environ.get("HONE_KEY") or "none", http_client=http, timeout=120
    )
    for message, ticket in tickets(MESSAGES, SEED):
        print(f"\n  {message}")
        print(f"    base model   {textwrap.shorten(ask(client, arguments.base, message), WIDTH)}")
        print(f"    tuned model  {ask(client, arguments.tuned, message)}")
        print(f"    right        {ticket.to_json()}", flush=True)


if __name__ == "__main__":
    main()
