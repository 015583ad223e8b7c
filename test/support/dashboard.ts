import axe from 'axe-core';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { expect } from 'vitest';

/** A reader of the dashboard, who notices what a browser complains about. */
export class Reader {
  /** Errors and warnings of the console, and errors of scripts. */
  readonly complaints: string[] = [];
  /** Requests to other places than the broker. */
  readonly elsewhere: string[] = [];
  /** Requests that were sent to the broker. */
  requests = 0;

  private constructor(
    readonly context: BrowserContext,
    readonly page: Page,
    readonly url: string,
  ) {
    page.setDefaultTimeout(60_000);
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) this.complaints.push(message.text());
    });
    page.on('pageerror', (error) => this.complaints.push(error.message));
    page.on('request', (request) => {
      this.requests += 1;
      if (new URL(request.url()).origin !== url) this.elsewhere.push(request.url());
    });
  }

  static async open(
    browser: Browser,
    url: string,
    { path = '', ...options }: { path?: string; colorScheme?: 'light' | 'dark'; width?: number } = {},
  ): Promise<Reader> {
    const context = await browser.newContext({
      colorScheme: options.colorScheme ?? 'light',
      viewport: { width: options.width ?? 1280, height: 850 },
    });
    const reader = new Reader(context, await context.newPage(), url);
    await reader.go(path);
    return reader;
  }

  /** Opens a place of the dashboard, such as `/queues/orders`. */
  async go(path: string): Promise<void> {
    await this.page.goto(`${this.url}/dashboard${path === '' ? '' : `#${path}`}`);
  }

  async logIn(key: string): Promise<void> {
    await this.page.getByLabel('API key').fill(key);
    await this.page.getByRole('button', { name: 'Log in' }).click();
  }

  async heading(name: string): Promise<void> {
    await this.page.getByRole('heading', { level: 1, name }).waitFor();
  }

  /** The serious findings of axe on the page as it is, with the first element of each. */
  async seriousFindings(): Promise<string[]> {
    await this.page.evaluate(axe.source);
    return this.page.evaluate(`(async () => {
      const { violations } = await axe.run(document);
      return violations
        .filter(({ impact }) => impact === 'serious' || impact === 'critical')
        .map(({ id, nodes }) => id + ': ' + nodes[0].html.slice(0, 200) + ' ' + (nodes[0].any[0]?.message ?? ''));
    })()`);
  }

  /** Opens a dialog by its button, types the name that confirms it, and does it. */
  async confirm(button: string, name: string): Promise<void> {
    await this.page.getByRole('button', { name: button, exact: true }).click();
    const dialog = this.page.getByRole('dialog');
    const action = dialog.getByRole('button', { name: button.split(' ')[0] as string, exact: true });
    expect(await action.isDisabled()).toBe(true);
    await dialog.getByLabel(`Type ${name} to confirm`).fill(name);
    await action.click();
    await dialog.waitFor({ state: 'detached' });
  }

  /**
   * Closes the browser's window. Fails if the browser complained about something else than these.
   */
  async expectNoComplaints(...expected: RegExp[]): Promise<void> {
    await this.context.close();
    expect(this.complaints.filter((complaint) => !expected.some((one) => one.test(complaint)))).toEqual([]);
    expect(this.elsewhere).toEqual([]);
  }
}
