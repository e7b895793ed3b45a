"""What goes over the wire: requests checked by pydantic, answers built as OpenAI's clients read them."""
