import js from "@eslint/js";
import globals from "globals";

export default [
  { ignores: [".venv*/**", "src/regard/compare/**"] },
  js.configs.recommended,
  {
    languageOptions: { ecmaVersion: 2020, globals: globals.browser },
    rules: { eqeqeq: "error", "prefer-const": "error", "no-var": "error" },
  },
];
