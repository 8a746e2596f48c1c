"""The people of `steady`, while `perf/load` reloads the server and kills its workers."""

from steady import BadLine, Browser, Chat, Script, Sender, TypesByHand

__all__ = ["BadLine", "Browser", "Chat", "Script", "Sender", "TypesByHand"]
