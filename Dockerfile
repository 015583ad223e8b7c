# One image for every app. It runs the broker by default; another command runs another app, as in
# docker-compose.yml.
FROM node:24-slim AS build
WORKDIR /app
COPY . .
RUN npm ci --no-audit --no-fund && npm run build
# Keeps only the packages that the programs below need. Without --omit=optional, an optional peer of
# @nestjs/swagger would bring the TypeScript compiler.
RUN npm ci --omit=dev --omit=optional --no-audit --no-fund \
  --workspace @rowmq/broker --workspace @rowmq/reaper --workspace @rowmq/migrate --workspace @rowmq/mysql-server

FROM node:24-slim
ENV NODE_ENV=production
WORKDIR /app
# Files belong to root and the program runs as node, so it cannot change itself.
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules node_modules
COPY --from=build /app/apps apps
COPY --from=build /app/libs libs
COPY --from=build /app/migrations migrations
COPY --from=build /app/tools/mysql-server tools/mysql-server
USER node
# Nobody outside can reach a container's loopback. With any other address, the broker requires
# ROWMQ_ADMIN_KEY.
ENV ROWMQ_HOST=0.0.0.0 ROWMQ_PORT=8080
EXPOSE 8080
# Checks the process, not the database. Otherwise an orchestrator that restarts unhealthy containers
# would kill every broker while the database is down.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.ROWMQ_PORT}/health/live`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "apps/broker/dist/main.js"]
