// What the pages do besides, where scripts run: local times, copying, refreshing. All else is in the HTML.
"use strict";
const REFRESH_SECONDS = 10;
const local = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });
const zone = new Intl.DateTimeFormat("en", { timeZoneName: "short" });

function dress(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const when = new Date(time.dateTime);
    if (isNaN(when)) continue;
    const name = zone.formatToParts(when).find((part) => part.type === "timeZoneName");
    time.title = time.textContent;
    time.textContent = `${local.format(when)} ${name ? name.value : ""}`;
  }
  for (const block of root.querySelectorAll("pre.copy")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    if (navigator.clipboard) block.after(button);
  }
}

function refreshing() {
  const main = document.getElementById("main");
  const key = "chest-refresh";
  const button = document.createElement("button");
  let timer = 0;
  const show = (on) => {
    clearInterval(timer);
    button.setAttribute("aria-pressed", String(on));
    if (on) timer = setInterval(refresh, REFRESH_SECONDS * 1000);
  };
  const refresh = async () => {
    if (document.hidden || main.contains(document.activeElement)) return;
    const answer = await fetch(location.href).catch(() => null);
    if (!answer || !answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    dress(page);
    main.replaceChildren(...page.getElementById("main").childNodes);
    document.querySelector("footer").replaceWith(page.querySelector("footer"));
  };
  button.type = "button";
  button.className = "quiet";
  button.textContent = `Refresh every ${REFRESH_SECONDS} s`;
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    sessionStorage.setItem(key, on ? "1" : "");
    show(on);
    if (on) refresh();
  });
  document.querySelector(".top").append(button);
  show(sessionStorage.getItem(key) === "1");
}

dress(document);
refreshing();
