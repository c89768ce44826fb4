// Before the first paint, so that the page does not flash in the other colours.
const kept = localStorage.getItem("theme");
if (kept === "light" || kept === "dark") document.documentElement.style.colorScheme = kept;
