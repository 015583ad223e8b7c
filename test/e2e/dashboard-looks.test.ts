import type { Browser } from 'playwright-core';
import { beforeAll, describe, expect, test } from 'vitest';
import { useOwnBroker } from '../support/api.js';
import { apiWith } from '../support/keys.js';
import { Reader } from '../support/dashboard.js';
import { fillWithTrouble, pagesOf } from '../support/dashboard-scenes.js';
import { useChromium } from '../support/use-chromium.js';

/*
 * The looks of the dashboard, as far as a program can judge them, in a real browser. Nothing is cut
 * off or beyond the window, whatever the names and the width are. The keyboard goes everywhere, in
 * the order of the page.
 */

const NARROW = 360;
const WIDE = 1920;
/** Each test opens up to fifteen pages. */
const PAGES_MS = 240_000;

const ADMIN_KEY = 'the-admin-key-of-the-looks-of-the-dashboard';
const shared = useOwnBroker({ ROWMQ_ADMIN_KEY: ADMIN_KEY });
let browser: Browser;
useChromium((started) => (browser = started));

/** The elements that a reader could not see as a whole, each with the reason. */
const FAULTS = `(() => {
  const view = document.scrollingElement;
  const name = (element) => element.tagName.toLowerCase() + '.' + element.className + ' ' + (element.textContent ?? '').slice(0, 40);
  const found = view.scrollWidth > view.clientWidth
    ? ['the page is ' + view.scrollWidth + ' px wide in ' + view.clientWidth] : [];
  const canScroll = (element) => ['auto', 'scroll'].includes(getComputedStyle(element).overflowX);
  const scrolls = (element) => element !== null && element !== view && (canScroll(element) || scrolls(element.parentElement));
  for (const element of document.querySelectorAll('header *, main *, footer *, dialog *')) {
    const { overflowX, textOverflow, clipPath } = getComputedStyle(element);
    const { width, right, left } = element.getBoundingClientRect();
    if (width <= 1 || clipPath !== 'none') continue;
    if ((right > view.clientWidth + 1 || left < -1) && !scrolls(element.parentElement)) found.push('beyond the window: ' + name(element));
    const isCut = ['hidden', 'clip'].includes(overflowX) && textOverflow !== 'ellipsis' && element.scrollWidth > element.clientWidth + 1;
    if (isCut) found.push('cut off: ' + name(element));
    const spills = overflowX === 'visible' && element.clientWidth > 0 && element.scrollWidth > element.clientWidth + 1;
    if (spills && !scrolls(element)) found.push('wider than its box: ' + name(element));
    for (let box = element.parentElement; ['A', 'BUTTON'].includes(element.tagName) && box !== null; box = box.parentElement) {
      if (getComputedStyle(box).overflowX === 'visible') continue;
      if (right > box.getBoundingClientRect().right + 1 && !canScroll(box)) found.push('cannot be clicked: ' + name(element));
      break;
    }
    const isScroller = canScroll(element) && element.scrollWidth > element.clientWidth + 1;
    if (isScroller && element.tabIndex < 0 && element.querySelector('a, button') === null) found.push('scrolls without the keyboard: ' + name(element));
  }
  return found.slice(0, 5);
})()`;

/** The element that has the keyboard, its place, and whether a reader sees it and its mark. */
const FOCUSED = `(() => {
  const element = document.activeElement;
  if (element === null || element === document.body) return null;
  const { top, left, bottom, right } = element.getBoundingClientRect();
  const { outlineStyle, outlineWidth } = getComputedStyle(element);
  const isSeen = bottom > 0 && top < innerHeight && right > 0 && left < innerWidth;
  return {
    name: element.tagName.toLowerCase() + ' ' + (element.getAttribute('aria-label') ?? element.textContent ?? '').trim().slice(0, 30),
    top: Math.round(top + scrollY), left: Math.round(left), bottom: Math.round(bottom + scrollY),
    isSeen, isMarked: outlineStyle !== 'none' && parseFloat(outlineWidth) >= 1,
  };
})()`;

interface Focused {
  name: string;
  top: number;
  left: number;
  bottom: number;
  isSeen: boolean;
  isMarked: boolean;
}

/** Logs in, and comes to a page. */
async function open(width: number, path = '/queues'): Promise<Reader> {
  const reader = await Reader.open(browser, shared.broker.url, { width, path });
  await reader.logIn(ADMIN_KEY);
  await reader.page.getByRole('button', { name: 'Log out' }).waitFor();
  return reader;
}

async function expectFaultless(reader: Reader, pages: Record<string, string>): Promise<void> {
  for (const [path, text] of Object.entries(pages)) {
    await reader.go(path);
    await reader.page.getByText(text).first().waitFor();
    expect(await reader.page.evaluate(FAULTS), path).toEqual([]);
  }
}

describe.each([NARROW, WIDE])('on a window of %i px, the dashboard', { timeout: PAGES_MS }, (width) => {
  test('without a queue says on every page what is not there, and cuts nothing off', async () => {
    const reader = await open(width);
    await expectFaultless(reader, {
      '/queues': 'No queues yet',
      '/queues/nowhere': "Queue 'nowhere' does not exist",
      '/messages': 'Id of the message',
      '/topics': 'No topics',
      '/schedules': 'No schedules',
      '/jobs': 'No job',
      '/reaper': 'No reaper runs',
      '/database': 'Partitions',
      '/audit': 'Audit',
      '/keys': 'No keys in the database',
      '/nothing': 'There is no such page',
    });
    // Each page says where the reader is, also if there is nothing to show.
    await reader.go('/queues/nowhere');
    await reader.heading('nowhere');
    await reader.expectNoComplaints(/Failed to load resource/);
  });
});

describe('with a thousand queues, long names, a backlog and dead letters, the dashboard', { timeout: PAGES_MS }, () => {
  let scene: Awaited<ReturnType<typeof fillWithTrouble>>;
  beforeAll(async () => {
    scene = await fillWithTrouble(shared.broker, apiWith(shared.broker.url, ADMIN_KEY));
  });

  test.each([NARROW, WIDE])('cuts nothing off on a window of %i px, and opens every message', async (width) => {
    const reader = await open(width);
    await expectFaultless(reader, pagesOf(scene));
    await reader.go(`/queues/${scene.dead}`);
    await reader.page.locator('.messages summary').first().click();
    await reader.page.getByLabel('Body', { exact: true }).first().waitFor();
    expect(await reader.page.evaluate(FAULTS), 'an open message').toEqual([]);
    for (const name of ['Send a message', 'Pause', 'Redrive', 'Replay', 'Delete']) {
      await reader.page.getByRole('main').getByRole('button', { name, exact: true }).first().click();
      await reader.page.getByRole('dialog').waitFor();
      expect(await reader.page.evaluate(FAULTS), name).toEqual([]);
      await reader.page.keyboard.press('Escape');
      await reader.page.getByRole('dialog').waitFor({ state: 'detached' });
    }
    await reader.expectNoComplaints();
  });

  test('shows the part of the navigation in which the reader is, also on a phone', async () => {
    const reader = await open(NARROW);
    for (const path of ['/queues', '/schedules', '/keys', '/queues']) {
      await reader.go(path);
      const link = reader.page.locator('nav a[aria-current="page"]').first();
      await link.waitFor();
      await expect
        .poll(async () => {
          const box = await link.boundingBox();
          return box !== null && box.x >= 0 && box.x + box.width <= NARROW;
        })
        .toBe(true);
    }
    await reader.expectNoComplaints();
  });

  test.each([NARROW, WIDE])(
    'leads the keyboard through a page from top to bottom, always in sight, on a window of %i px',
    async (width) => {
      const reader = await open(width, `/queues/${scene.dead}`);
      const { page } = reader;
      await page.locator('.messages summary').first().waitFor();
      const steps: Focused[] = [];
      for (let step = 0; step < 30; step += 1) {
        await page.keyboard.press('Tab');
        const focused = await page.evaluate<Focused | null>(FOCUSED);
        if (focused === null) break;
        steps.push(focused);
      }
      expect(steps[0]?.name).toContain('Skip to the content');
      expect(steps.length).toBeGreaterThan(15);
      expect(steps.filter(({ isSeen, isMarked }) => !isSeen || !isMarked)).toEqual([]);
      // From the heading on, the header above scrolls with the page.
      const inPage = steps.slice(steps.findIndex(({ name }) => name === 'button Send a message'));
      const backwards = inPage.filter((one, index) => one.bottom < (inPage[index - 1]?.top ?? 0));
      expect(backwards).toEqual([]);
      await reader.expectNoComplaints();
    },
  );

  test('moves nothing once it has loaded, while figures come every two seconds', async () => {
    const reader = await open(WIDE, `/queues/${scene.queue}`);
    const { page } = reader;
    await page.locator('.messages summary').first().waitFor();
    await page.locator('.plot canvas').nth(1).waitFor();
    const places = async (): Promise<unknown> =>
      page.evaluate(
        `['.figures', '.charts', '.tabs', '.messages'].map((part) => document.querySelector(part).getBoundingClientRect().top)`,
      );
    const first = await places();
    for (let seen = 1; seen < 12; seen += 1) {
      const before = reader.requests;
      await expect.poll(() => reader.requests - before, { timeout: 30_000 }).toBeGreaterThan(0);
      await page.evaluate(`new Promise((resolve) => requestAnimationFrame(resolve))`);
      expect(await places()).toEqual(first);
    }
    await reader.expectNoComplaints();
  });
});
