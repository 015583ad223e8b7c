import { describe, expect, test } from 'vitest';
import { databaseHosts, databaseName, databaseParts, databaseUrl } from './database-url.js';

describe('a database URL', () => {
  test.each([
    'mysql://u:p@h:3306/db',
    'mariadb://h/db',
    'mysql://u:p%40ss@[::1]:3306/db',
    'mysql://u:p@a:3306,b:3307,c/db',
    'mysql://u:p@[::1]:3306,[::2]:3306/db',
  ])('may be %s', (text) => {
    expect(databaseUrl.parse(text)).toBe(text);
  });

  test.each([
    '',
    'h:3306/db',
    'postgres://h/db',
    'mysql://h',
    'mysql://h/',
    'mysql:',
    'http://h/db',
    'mysql:///db',
    'mysql://a,b',
    'mysql://u:p@a,/db',
    'mysql://u:p@,a/db',
    'mysql://u:p@a,,b/db',
    'mysql://u:p@a:70000,b/db',
    'mysql://u:p@a:x,b/db',
    'mysql://u:p@a b,c/db',
    'mysql://a,b,a/db',
    'mysql://a:3306,a/db',
    'mysql://a,b,c,d,e,f,g,h,i,j/db',
  ])('may not be %j', (text) => {
    expect(databaseUrl.safeParse(text)).toMatchObject({ success: false });
  });

  test.each([
    ['mysql://u:secret@a:3306,b:99999/db', "has an invalid host, 'b:99999'"],
    ['mysql://u:secret@a,b,a/db', 'names the host a twice'],
    ['mysql://u:secret@1,2,3,4,5,6,7,8,9,10/db', 'names 10 hosts; at most 9'],
    [
      'mysql://u:secret@a/db?ssl=true',
      'takes no parameters, so it may have no ? or #: for encryption set ROWMQ_DATABASE_TLS',
    ],
    ['mysql://u:secret?@a/db', 'in a password write them as %3F and %23'],
    ['mysql://u:secret#@a/db', 'in a password write them as %3F and %23'],
    ['mysql://u:secret%@a/db', 'a % itself is written %25'],
    ['mysql://u:secret%ff@a/db', 'has a % that begins no escape'],
    ['mysql://u:secret@a,b', 'must look like mysql://user:password@host:port/database'],
    ['mysql://u:secret/two@a:3306/db', 'has an @ behind its first /: in the user and the password, write a / as %2F'],
    ['mysql://u:3306/secret@a:3306/db', 'has an @ behind its first /'],
  ])('that is invalid is refused with the reason, and without its password: %s', (text, reason) => {
    const message = databaseUrl.safeParse(text).error?.issues[0]?.message;
    expect(message).toContain(reason);
    expect(message).not.toContain('secret');
  });

  test('with several hosts splits into one URL for each', () => {
    expect(databaseHosts('mysql://u:p,%40@a:3306,b/db')).toEqual(['mysql://u:p,%40@a:3306/db', 'mysql://u:p,%40@b/db']);
    expect(databaseHosts('mariadb://h/db')).toEqual(['mariadb://h/db']);
  });

  test.each([
    [
      'mysql://u:p%40%3F%2Fss@h:3307/d%23b',
      { host: 'h', port: 3307, username: 'u', password: 'p@?/ss', database: 'd#b' },
    ],
    ['mysql://u:p@ss@h/db', { host: 'h', port: 3306, username: 'u', password: 'p@ss', database: 'db' }],
    ['mysql://u@[::1]/db', { host: '::1', port: 3306, username: 'u', password: '', database: 'db' }],
  ])('%s splits into its parts', (url, parts) => {
    expect(databaseParts(url)).toEqual(parts);
  });

  test('can be shown without its password', () => {
    expect(databaseName('mysql://u:secret@a:3306,b/db')).toBe('a:3306,b/db');
  });
});
