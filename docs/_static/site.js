// What scrolls sideways can be reached by the keyboard
document.addEventListener("DOMContentLoaded", () => {
  const mark = () => document.querySelectorAll("pre, .cell_output, .artefact, .table-wrapper, .math-wrapper, mjx-container").forEach(e => {
    if (e.scrollWidth > e.clientWidth + 1 || e.classList.contains("math-wrapper")) e.tabIndex = 0;
  });
  mark();
  addEventListener("load", () => { mark(); window.MathJax?.startup?.promise?.then(mark); });
  addEventListener("resize", mark);
});
