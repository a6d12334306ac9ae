"use strict";
// The page is complete without this script. It adds a switch between the themes, and tips that
// follow the pointer or the arrow keys instead of the browser's own.
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const KEY = "wtie-theme";

  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);
  const nameButton = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
  try {
    const kept = window.localStorage.getItem(KEY);
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch { /* a page opened from a file may have no storage: the choice then ends with it */ }
  button.hidden = false;
  nameButton();
  prefersDark.addEventListener("change", nameButton);
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    nameButton();
    try { window.localStorage.setItem(KEY, root.dataset.theme); } catch { /* as above */ }
  });

  const tip = document.getElementById("tip");
  const REACH = 28; // pixels from a mark at which its tip shows
  let current = null;

  const hide = () => {
    if (current) current.classList.remove("current");
    current = null;
    tip.hidden = true;
  };
  const show = (mark) => {
    if (mark === current) return;
    hide();
    current = mark;
    mark.classList.add("current");
    tip.textContent = mark.dataset.tip;
    tip.hidden = false;
    const box = mark.getBoundingClientRect();
    const own = tip.getBoundingClientRect();
    const left = box.left + box.width / 2 - own.width / 2;
    const above = box.top - own.height - 8;
    tip.style.left = `${Math.max(8, Math.min(left, root.clientWidth - own.width - 8))}px`;
    tip.style.top = `${above > 4 ? above : box.bottom + 8}px`;
  };
  const distance = (box, x, y) => {
    const dx = Math.max(box.left - x, 0, x - box.right);
    const dy = Math.max(box.top - y, 0, y - box.bottom);
    // Where marks overlap, the one whose middle is nearest.
    const middle = Math.hypot(box.left + box.width / 2 - x, box.top + box.height / 2 - y);
    return Math.hypot(dx, dy) + middle / 1000;
  };

  for (const plot of document.querySelectorAll(".plot")) {
    for (const title of plot.querySelectorAll("title")) {
      const mark = title.parentNode;
      mark.dataset.tip = title.textContent;
      title.remove();
    }
    const marks = () =>
      [...plot.querySelectorAll("[data-tip]")].filter((mark) => mark.getClientRects().length);
    const name = plot.closest("figure").querySelector("h3").textContent;
    plot.tabIndex = 0;
    plot.setAttribute("role", "group");
    plot.setAttribute("aria-label", `${name}. The arrow keys step through the values.`);

    plot.addEventListener("pointermove", (event) => {
      let nearest = null;
      let least = REACH;
      for (const mark of marks()) {
        const away = distance(mark.getBoundingClientRect(), event.clientX, event.clientY);
        if (away < least) [nearest, least] = [mark, away];
      }
      if (nearest) show(nearest); else hide();
    });
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", (event) => {
      const all = marks();
      const at = all.indexOf(current);
      const steps = {
        ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at < 0 ? all.length - 1 : at - 1,
        ArrowUp: at < 0 ? all.length - 1 : at - 1, Home: 0, End: all.length - 1,
      };
      if (event.key === "Escape") hide();
      if (!(event.key in steps) || !all.length) return;
      event.preventDefault();
      show(all[(steps[event.key] + all.length) % all.length]);
    });
  }
  window.addEventListener("scroll", hide, { passive: true });
})();
