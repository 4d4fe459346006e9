"""A page as a browser reads it."""

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "wbr"}


class Page(HTMLParser):
    """A page as elements with their attributes, and the text of some."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts, self.problems = [], [], [], []
        self.feed(text)
        self.problems += self.open

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            self.problems.append(f"{tag} has an attribute twice")
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}>")

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", " ".join(data.split())))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def images(self, kind):
        return [image for image in self.all("img") if image["src"].startswith(f"data:image/{kind};")]

    def words(self, *tags):
        return [text for tag, text in self.texts if tag in tags]

    @property
    def text(self):
        return " ".join(text for tag, text in self.texts if tag != "style")
