"""OpenAI's REST dialect for language models and embeddings: pure translation in files of its own, thin routes in
`rest.py`; runs on the owner's loop."""
