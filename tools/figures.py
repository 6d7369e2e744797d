"""Compare two SVG figures as pictures: the same elements, coordinates within a stated distance.

Another processor may move the last digit of a coordinate, and with it the hashed names of clip paths and markers; a
changed curve moves points by more. Names are therefore compared by order of appearance and numbers with a tolerance.
"""

import itertools
import re
import xml.etree.ElementTree as ElementTree

TOLERANCE = 0.25  # in points, of a figure some 400 points wide: less than the width of a hairline
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def difference(stored, fresh, tolerance=TOLERANCE):
    """What separates the SVG texts ``stored`` and ``fresh``, in words, or None where nothing does."""
    if stored == fresh:
        return None
    old, new = (list(_elements(text)) for text in (stored, fresh))
    if len(old) != len(new):
        return f"{len(old)} elements stored, {len(new)} drawn"
    for (tag, attributes, text), (new_tag, new_attributes, new_text) in zip(old, new):
        if (tag, text, attributes.keys()) != (new_tag, new_text, new_attributes.keys()):
            return f"<{tag}> stored, <{new_tag}> drawn, or their attributes or text differ"
        for key, value in attributes.items():
            reason = _apart(value, new_attributes[key], tolerance)
            if reason:
                return f"{key} of <{tag}>: {reason}"
    return None


def adopt_close(outputs, stored_outputs, tolerance=TOLERANCE):
    """``outputs`` with every SVG that is close to its stored counterpart replaced by it, so that the two are equal."""
    stored = [out["data"]["image/svg+xml"] for out in stored_outputs if "image/svg+xml" in out.get("data", {})]
    drawn = [out for out in outputs if "image/svg+xml" in out.get("data", {})]
    for output, picture in zip(drawn, stored):
        if difference("".join(picture), "".join(output["data"]["image/svg+xml"]), tolerance) is None:
            output["data"]["image/svg+xml"] = picture
    return outputs


def _elements(text):
    root = ElementTree.fromstring(text)
    names = {}
    for element in root.iter():
        if "id" in element.attrib:
            names[element.attrib["id"]] = f"name{len(names)}"
    for element in root.iter():
        attributes = {key: _renamed(key, value, names) for key, value in element.attrib.items()}
        yield element.tag.rpartition("}")[2], attributes, (element.text or "").strip()


def _renamed(key, value, names):
    if key == "id":
        return names[value]
    if key == "d":
        return re.sub(r"M[^Mz]*z", _unclosed, value).strip()
    return re.sub(r"#([^\s)\"']+)", lambda match: "#" + names.get(match[1], match[1]), value)


def _unclosed(curve):
    """A closed curve without its last word where it ends at its beginning: by the last bit it may say so or not."""
    numbers = [float(number) for number in NUMBER.findall(curve[0])]
    returns = max(abs(a - b) for a, b in zip(numbers[:2], numbers[-2:])) < TOLERANCE
    return curve[0][:-1].rstrip() + " " if returns else curve[0]


def _apart(old, new, tolerance):
    if old == new:
        return None
    if NUMBER.split(old) != NUMBER.split(new):
        return "another shape or style"
    for a, b in itertools.zip_longest(NUMBER.findall(old), NUMBER.findall(new)):
        if abs(float(a) - float(b)) > tolerance:
            return f"{a} stored, {b} drawn"
    return None
