// Asks for an access token where one is needed. It goes into a cookie that no script can read.

import { fetchLogin, login } from "./api.js";

export class Door {
  /** `composer` gives way as long as there is nobody to write to. */
  constructor({ form, input, fault, composer }) {
    Object.assign(this, { form, input, fault, composer });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.enter();
    });
  }

  /** Ask at once where it is plain that a token is needed. */
  async look() {
    const { required, granted } = await fetchLogin();
    if (required && !granted) this.show();
  }

  show() {
    this.form.hidden = false;
    this.composer.hidden = true;
    this.input.focus();
  }

  async enter() {
    this.fault.hidden = true;
    try {
      await login(this.input.value.trim());
    } catch (error) {
      this.fault.textContent = error.message;
      this.fault.hidden = false;
      this.input.select();
      return;
    }
    this.input.value = "";
    this.form.hidden = true;
    this.composer.hidden = false;
    this.composer.querySelector("textarea").focus();
  }
}
