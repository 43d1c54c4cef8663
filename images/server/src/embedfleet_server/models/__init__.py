"""Models as the engine wants them, made from a manifest's `spec.models`. Torch and its libraries stay in this folder.

`loading` puts the rest together: `store` finds the files, `safety` refuses what would run code or hold no weights,
`fingerprint` names the vector space, `device` says where and how precisely, `tokenizing` turns inputs into token ids,
`layout` cuts a batch into pieces, `dense` computes vectors.
"""
