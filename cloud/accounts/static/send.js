// Sends the only form of the page: a link that signs in needs no click.
document.querySelector("form").requestSubmit();
