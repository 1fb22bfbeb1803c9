"""Controls of a page by keyboard alone: reached by Tab, with a focus that can be seen."""

from typing import Any

# Controls without a stop of their own, by selector, and the keys that act in their place (docs/CONSOLE.md, "Keys").
BY_OTHER_KEYS = {
    ".r-check": "x, and Shift with j and k",
    "input[type=radio]:not(:checked)": "arrows, from the chosen one of its name",
}
_CONTROLS = ":is(a[href], button, input, select, textarea, summary, audio[controls], video[controls], [tabindex='0'])"
_IS_SHOWN = "one.checkVisibility({ visibilityProperty: true })"
# Mark all controls with a number. A hidden page follows no changes, so that no part is replaced meanwhile.
_MARK = f"""() => {{
    Object.defineProperty(document, "hidden", {{ configurable: true, value: true }});
    document.dispatchEvent(new Event("visibilitychange"));
    let number = 0;
    for (const one of document.querySelectorAll("{_CONTROLS}")) {{
        if ({_IS_SHOWN} && !one.matches(":disabled, [type=hidden]")) one.dataset.stop = number++;
    }}
    document.activeElement?.blur();
    getSelection().removeAllRanges();
    scrollTo(0, 0);
    return number;
}}"""
# The control with the focus, and why it cannot be seen that it has it.
_STOP = """async () => {
    const one = document.activeElement;
    if (!one || one === document.body) return { stop: "", problem: "" };
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    const isMarked = (element, part) => {
        const style = getComputedStyle(element, part);
        return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
    };
    const label = one.closest("label, .v-file");
    const html = one.outerHTML.slice(0, 160);
    const answer = (problem) => ({ stop: one.dataset.stop ?? html, problem: problem && `${problem}: ${html}` });
    if (!isMarked(one) && !isMarked(one, "::after") && !(label && isMarked(label))) return answer("no outline");
    const box = [...one.getClientRects()].find((each) => each.width && each.height) ?? one.getBoundingClientRect();
    const [left, top] = [Math.max(box.left, 0), Math.max(box.top, 0)];
    const [right, bottom] = [Math.min(box.right, innerWidth), Math.min(box.bottom, innerHeight)];
    if (right <= left || bottom <= top) return answer("outside of the window");
    const seen = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
    const isSeen = seen && (one.contains(seen) || seen.contains(one) || one.labels?.length);
    return answer(isSeen ? "" : "covered");
}"""
_LEFT = f"""([seen, others]) => [...document.querySelectorAll("[data-stop]")]
    .filter((one) => !seen.includes(one.dataset.stop) && !one.matches(others) && {_IS_SHOWN})
    .map((one) => one.outerHTML.slice(0, 160))"""
_FOLLOW = """() => {
    delete document.hidden;
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def keyboard_problems(page: Any) -> list[str]:
    """Press Tab through the whole page; return the controls that it does not reach, or whose focus cannot be seen."""
    count = page.evaluate(_MARK)
    seen: list[str] = []
    problems: list[str] = []
    for _ in range(3 * count + 10):  # fields of times have several stops
        page.keyboard.press("Tab")
        found = page.evaluate(_STOP)
        if seen and (not found["stop"] or (found["stop"] == seen[0] != seen[-1])):
            break
        if found["problem"] and found["stop"] not in seen:
            problems.append(found["problem"])
        seen.append(found["stop"])
    left = page.evaluate(_LEFT, [seen, ",".join(BY_OTHER_KEYS)])
    page.evaluate(_FOLLOW)
    return problems + [f"not reached by Tab: {html}" for html in left]
