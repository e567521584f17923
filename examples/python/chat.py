"""Talks to the model `smollm2` with OpenAI's own client: pip install openai."""

import os

from openai import OpenAI

url = os.environ.get("TIDEMILL_URL", "http://127.0.0.1:8000")
client = OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("TIDEMILL_KEY", "none is needed"))

question = {"role": "user", "content": "What is the capital of France?"}
said = client.chat.completions.create(model="smollm2", messages=[question], temperature=0)
print(said.choices[0].message.content)

for chunk in client.chat.completions.create(model="smollm2", messages=[question], temperature=0, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
