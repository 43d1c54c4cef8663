"""Models as the engine wants them, made from a manifest's `spec.models`. Torch and its libraries stay in this folder.

`loading` puts the rest together: `store` finds the files, `safety` refuses what would run code or hold no weights,
`tasks` tells what kind of model it is, `fingerprint` names the vector space, `device` says where and how precisely,
`tokenizing` turns inputs into token ids, `layout` cuts a batch into pieces, `forward` runs the modules on them;
`dense`, `sparse`, `multi_vector` and `rerank` make rows of what comes out, and `building` puts each of these together.
"""
