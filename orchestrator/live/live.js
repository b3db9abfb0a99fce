"use strict";
// Asks for what has changed, and puts it on the page. Text that comes from the record was escaped
// by the server, or is set as text here.

const INTERVAL_MS = 1000;
const tags = {}; // address -> ETag of what is shown
const byId = id => document.getElementById(id);
const openTrial = () => (location.hash.match(/^#trial-(\d+)$/) || [])[1];

// What the address has now; null: what is shown already.
async function ask(address) {
  const headers = tags[address] ? {"If-None-Match": tags[address]} : {};
  const answer = await fetch(address, {headers, cache: "no-store"});
  tellAge(answer.headers.get("X-Age-Seconds"));
  if (answer.status === 304) return null;
  if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
  tags[address] = answer.headers.get("ETag");
  return answer.json();
}

function tellAge(seconds) {
  const age = Number(seconds ?? NaN);
  byId("age").textContent = Number.isNaN(age)
    ? "reading the record ..."
    : age < 30 ? "as the record is now" : `as the record was ${Math.round(age)} s ago`;
}

// Sections that have changed are drawn again, the others are left as they are.
function show(place, sections) {
  const wanted = new Set(sections.map(section => section.id));
  for (const element of [...place.children]) if (!wanted.has(element.dataset.id)) element.remove();
  sections.forEach((section, position) => {
    let element = [...place.children].find(child => child.dataset.id === section.id);
    if (!element) {
      element = document.createElement("section");
      element.dataset.id = section.id;
      element.append(document.createElement("h2"), document.createElement("div"));
      element.firstChild.textContent = section.title;
    }
    if (place.children[position] !== element) {
      place.insertBefore(element, place.children[position] || null);
    }
    const content = JSON.stringify(section);
    if (element.shown !== content) fill(element.lastChild, section);
    element.shown = content;
  });
}

function fill(place, section) {
  if (!section.figure) {
    if (place.firstChild?.figure) Plotly.purge(place.firstChild.figure);
    const open = [...place.querySelectorAll("details")].map(details => details.open);
    const left = [...place.querySelectorAll(".scroll")].map(scroll => scroll.scrollLeft);
    place.innerHTML = section.html;
    place.querySelectorAll("details").forEach((details, i) => details.open = open[i]);
    place.querySelectorAll(".scroll").forEach((scroll, i) => scroll.scrollLeft = left[i] || 0);
    place.querySelectorAll("tr[data-trial] > td:first-child").forEach(linkTrial);
    return;
  }
  if (!place.firstChild?.figure) {
    place.innerHTML = '<div class="scroll"><div></div></div>';
    place.firstChild.figure = place.firstChild.firstChild;
  }
  const figure = place.firstChild.figure;
  figure.style.minWidth = `${Number(section.min_width)}px`;
  const {data, layout} = section.figure;
  figure.style.height = `${layout.height || 450}px`; // else a redrawn one has none
  // what the viewer has zoomed stays so
  Plotly.react(figure, data, {...layout, uirevision: "same"}, {displaylogo: false, responsive: true});
}

function linkTrial(cell) {
  const link = document.createElement("a");
  link.href = `#trial-${cell.parentElement.dataset.trial}`;
  link.textContent = cell.textContent;
  cell.replaceChildren(link);
}

async function refresh() {
  const study = await ask("study");
  if (study) {
    document.title = byId("name").textContent = study.name;
    byId("question").textContent = study.question || "";
    byId("hypothesis").textContent = study.hypothesis ? `Hypothesis: ${study.hypothesis}` : "";
    byId("problem").textContent = study.problem;
    show(byId("study"), study.sections);
  }
  const number = openTrial();
  const trial = number && await ask(`trials/${number}`);
  if (trial && number === openTrial()) show(byId("trial"), trial.sections);
}

async function keepRefreshing() {
  while (true) {
    if (!document.hidden) {
      try {
        await refresh();
      } catch (error) {
        byId("age").textContent = `the server does not answer (${error.message})`;
      }
    }
    await new Promise(resolve => setTimeout(resolve, INTERVAL_MS));
  }
}

addEventListener("hashchange", () => {
  byId("trial").replaceChildren();
  const number = openTrial();
  if (number) {
    delete tags[`trials/${number}`];
    byId("trial").scrollIntoView();
  }
});
keepRefreshing();
