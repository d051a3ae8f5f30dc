// Before the first paint: a theme that was chosen, so that a dark page does not flash white.
document.documentElement.dataset.theme = localStorage.getItem("agentws.theme") ?? "auto";
