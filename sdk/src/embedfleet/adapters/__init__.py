"""A service under the interfaces of other packages; each module imports its own, or names the extra.

`langchain`, `llama_index` and `chroma` are classes of those packages' own; `sentence_transformers` is a twin of
`SentenceTransformer` that needs no other package.
"""
