"""The HTTP side: routes, the checks at the edge, the answers, the error table, the lifecycle."""
