"""Two language-model agents, student and tutor, write conversations; every turn is checked."""
