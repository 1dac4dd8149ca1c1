"""Names that columns often have, by what they hold."""

import re

TEXT_NAMES = {
    *("text", "texts", "tweet", "sentence", "content", "contents", "body", "message", "msg", "sms"),
    *("comment", "review", "utterance", "document", "doc", "query", "question", "description"),
    *("abstract", "headline", "title", "article", "post", "premise", "prompt", "snippet", "phrase"),
    *("passage", "transcript", "narrative", "complaint", "note"),
}
LABEL_NAMES = {
    *("label", "labels", "class", "classes", "category", "categories", "sentiment", "target"),
    *("intent", "intents", "topic", "topics", "emotion", "emotions", "tag", "tags", "polarity"),
    *("stance", "genre", "rating", "stars", "y", "gold"),
}
GROUP_NAMES = {
    *("user", "userid", "username", "author", "authorid", "speaker", "patient", "customer"),
    *("client", "thread", "conversation", "session", "dialogue", "dialog", "account", "group"),
    *("reviewer", "writer"),
}
SPLIT_NAMES = {"split", "set", "subset", "partition", "fold", "usage"}
WEIGHT_NAMES = {"confidence", "weight"}
TIME_NAMES = {"date", "time", "datetime", "timestamp", "created", "published", "year"}
PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("question", "answer"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
    ("query", "document"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "response"),
    ("claim", "evidence"),
    ("headline", "body"),
    ("title", "body"),
    ("title", "text"),
    ("title", "content"),
    ("title", "abstract"),
    ("title", "description"),
)
"""Columns whose two texts belong together, first and second."""
PARTS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])|[^\W\d_]+")


def words_of(name: str) -> list[str]:
    """Return the words of a column name.

    Example:
        >>> words_of("userID"), words_of("sentiment_label"), words_of("airline:confidence")
        (['user', 'id'], ['sentiment', 'label'], ['airline', 'confidence'])
    """
    return [part.casefold() for part in PARTS.findall(name)]
